"""Forecasts of the least loss of a budget, and which of the forms foresaw the budgets so far."""
