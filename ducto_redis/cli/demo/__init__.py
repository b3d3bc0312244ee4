"""`ducto demo`: a metered LLM endpoint, end to end, on an engine and a ledger of its own.

- `setting`: who takes part, and what things cost.
- `machinery`: the engine, the ledger and its worker, in a temporary folder.
- `stand_in_model`, `web_app`, `web_server`: the endpoint that is metered, and the server that it runs on.
- `traffic`: what the customers do, with the real openai client.
- `proof`: every balance again, from the SQL ledger alone.
- `story`: all of it, told on the terminal; `command`: the command.
"""
