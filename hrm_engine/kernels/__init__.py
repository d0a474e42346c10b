"""Operations with more than one implementation, and the only place that asks what device they run on."""
