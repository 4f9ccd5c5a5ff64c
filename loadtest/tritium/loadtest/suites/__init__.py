"""The suites: locustfiles that `tritium load` runs, and that `locust -f` runs as well."""
