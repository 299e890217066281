"""The paper's figures, and what to hold against them."""
