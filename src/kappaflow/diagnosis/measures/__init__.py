"""The measures: each looks at a flow in one way, and says numbers and names."""
