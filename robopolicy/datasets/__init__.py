"""Episodes on disk: the Zarr v3 store, window sampler and importers."""
