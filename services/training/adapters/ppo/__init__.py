"""PPO on a language model: actor, critic, reward and reference on one frozen base."""
