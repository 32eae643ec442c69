"""The inbox of escalations: what the gate sent to a person, who has it, and what he said."""
