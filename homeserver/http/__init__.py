"""HTTP plumbing that both edges share: routes, requests, rate limits, and the one outbound agent.

`routing` declares endpoints and finds them; `calls` is what a handler gets and gives; `dispatch` takes a
request through authentication, rate limit, decoding, handler and rendering, whatever carried it;
`request` and `site` are the HTTP/1.1 server; `rate_limits` the buckets. `agent` and its neighbours are the
way out. No endpoint lives here: families of them are in `client_api/` and `federation/`.
"""
