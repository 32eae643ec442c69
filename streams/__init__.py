"""Floor 2: what moves. The log, the policy engine, the decider, agents, replay, verification."""
