"""Parts of a vertebra in the CT sample that the tptbox package carries."""
