# ruff: noqa: A005 (the tests mirror the package, whose `trace` shadows nothing)
