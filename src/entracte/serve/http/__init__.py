"""HTTP: routes, request and response bodies, authentication and limits."""
