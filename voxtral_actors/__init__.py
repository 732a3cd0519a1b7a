"""Live speech-to-text over WebSocket: Voxtral Realtime on vLLM, supervised by trio actors."""

__version__ = "0.1.0"
