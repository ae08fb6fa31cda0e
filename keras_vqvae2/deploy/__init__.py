from keras_vqvae2.deploy.export import export_decoder, export_encoder

__all__ = ["export_decoder", "export_encoder"]
