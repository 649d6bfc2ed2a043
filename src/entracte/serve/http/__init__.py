"""HTTP: routes, what they read and write, and who may use them."""
