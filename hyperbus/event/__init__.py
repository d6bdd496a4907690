"""What travels: data types, the envelope, codecs, and the way from a type to its stream. No I/O."""
