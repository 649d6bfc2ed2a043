"""The service: HTTP with the OpenAI Videos protocol, jobs that survive, workers, a web page."""
