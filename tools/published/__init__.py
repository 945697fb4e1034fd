"""The published data on the Hub: what there is, its transfer, what was fetched before."""
