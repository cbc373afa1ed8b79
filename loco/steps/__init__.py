"""The steps of the workflow: one module per rule, of the same name.

A step opens its inputs, checks that they were made as planned, calls the library, and writes its output with a
provenance record. No other module reads or writes files between the steps.
"""
