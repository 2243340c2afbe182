"""The twin: a backbone learned from a cohort with differential privacy, and the imprint rows one consent opens."""
