"""Devices beyond login: messages from device to device, their keys, and news of changed devices."""
