"""Ground floor: errors, protocols, random numbers, registry, units, files, jobs. No physics, no torch."""
