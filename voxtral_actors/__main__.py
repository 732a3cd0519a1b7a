"""`python -m voxtral_actors` is `voxtral-actors`."""

from voxtral_actors.cli import main

if __name__ == "__main__":
    main(prog_name="voxtral-actors")
