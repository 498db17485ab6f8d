"""`check`: whether a budget can hold on this agent, found out on a stand-in before a cent is spent."""
