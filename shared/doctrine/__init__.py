"""The doctrine of adaptation as rules that several services apply."""
