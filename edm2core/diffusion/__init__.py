"""What the paper describes: networks, denoiser, training, sampling and averages. This package knows neither experiments nor stores."""
