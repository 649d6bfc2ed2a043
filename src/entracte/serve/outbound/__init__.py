"""What the service asks of other machines: images by URL, and webhooks."""
