"""What tests of several services need. Never imported by a service."""
