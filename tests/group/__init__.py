"""Replicas of a consumer group on real brokers: killed, frozen, joined and left, and the sum over them is exact."""
