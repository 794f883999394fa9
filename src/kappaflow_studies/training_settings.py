"""What presets say of flows that are trained on tables and on images."""

from kappaflow_studies.engine.study import Case, StudySettings
from kappaflow_studies.fields import Count, Positive


class TrainingSettings(StudySettings):
    """How flows of tables, and of images, are trained and measured.

    Attributes:
        hidden: Width of the two hidden layers, on tables.
        channels: Of the networks of images.
        rows: Of a table, to train on.
        epochs: Over a table.
        image_epochs: Over the images.
        batch_size: Rows a step.
        image_batch_size: Images a step.
        learning_rate: The highest one, on tables.
        image_learning_rate: The highest one, on images.
        seeds: How often each is trained.
        points: At which the conditioning of flows of tables is measured.
        image_points: The same of images.
    """

    hidden: Count
    channels: Count
    rows: Count
    epochs: Count
    image_epochs: Count
    batch_size: Count
    image_batch_size: Count
    learning_rate: Positive
    image_learning_rate: Positive
    seeds: Count
    points: Count
    image_points: Count

    def of_tables(self) -> Case:
        """Returns what each case of a table has."""
        return {
            "what": "table",
            "hidden": self.hidden,
            "rows": self.rows,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "points": self.points,
        }

    def of_images(self) -> Case:
        """Returns what each case of images has."""
        return {
            "what": "image",
            "hidden": self.channels,
            "epochs": self.image_epochs,
            "batch_size": self.image_batch_size,
            "learning_rate": self.image_learning_rate,
            "points": self.image_points,
        }
