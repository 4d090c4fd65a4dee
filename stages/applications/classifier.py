"""The reference classifier: a small convolutional network."""

from stages.applications.schema import SeededClassifier
from stages.core.backend import keras

layers = keras.layers

FEATURES = "features"  # the layer before the classes


def build_classifier(height: int, width: int, classes: int, settings: SeededClassifier) -> keras.Model:
    """From images float32 [images, height * width] in [0, 1] to probabilities float32 [images, classes].

    Its layer "features" gives [images, settings.features]. Weights are float32, drawn from the seed.
    """
    keras.utils.set_random_seed(settings.seed)
    dtype, activation = settings.precision, settings.activation
    image = keras.Input((height * width,), dtype="float32", name="image")
    x = layers.Reshape((height, width, 1), dtype=dtype, name="map")(image)
    for index, filters in enumerate(settings.filters, 1):
        convolution = layers.Conv2D(
            filters, 3, strides=2, padding="same", activation=activation, dtype=dtype, name=f"convolution_{index}"
        )
        x = convolution(x)
    x = layers.Flatten(dtype=dtype, name="flat")(x)
    x = layers.Dense(settings.features, activation, dtype=dtype, name=FEATURES)(x)
    if settings.dropout:
        x = layers.Dropout(settings.dropout, seed=settings.seed, dtype=dtype, name="dropout")(x)
    # float32 in any precision: logarithms of probabilities follow
    return keras.Model(image, layers.Dense(classes, "softmax", dtype="float32", name="class")(x), name="classifier")


def feature_model(classifier: keras.Model) -> keras.Model:
    """The same layers, from images to features."""
    return keras.Model(classifier.input, classifier.get_layer(FEATURES).output, name=FEATURES)
