"""What receiver and sender share of the network: one place that makes an AE, the tables of SOP classes and statuses."""
