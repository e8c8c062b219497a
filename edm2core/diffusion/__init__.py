"""The paper: networks, denoiser, training, sampling and averages. It knows neither experiments nor stores."""
