"""The FinOps loop over what was recorded: attribute, forecast, alarm, export, advise.

Reads traces, ledgers and prices; the core knows nothing of it. Needs `pip install "langchain-agentbudget[finops]"`.
"""
