"""The host: LangChain and LangGraph translated into calls, results and tasks, once, here."""
