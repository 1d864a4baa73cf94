"""What the sample knows: a title and a few sentences each."""

PASSAGES = {
    "cats": (
        "Cats purr by moving the muscles of the larynx about 25 times a second, while breathing "
        "in and out. They purr when they are content, and also when they are hurt, which seems "
        "to calm them. Big cats such as lions roar instead."),
    "tides": (
        "Tides are caused by the gravity of the moon and, to a lesser degree, of the sun. Most "
        "coasts see two high tides a day, about twelve hours and 25 minutes apart. Spring tides "
        "happen when sun, moon and earth stand in a line."),
    "bread": (
        "Bread rises because yeast eats sugar and gives off carbon dioxide. Gluten holds the gas "
        "in the dough, so that bubbles form. Sourdough uses wild yeast together with bacteria, "
        "which make it taste sour."),
    "rainbows": (
        "A rainbow appears when sunlight enters drops of rain, is reflected inside them and leaves "
        "again, bent by a different angle for each colour. The sun must stand behind the viewer. "
        "In a double rainbow the colours of the outer bow are reversed."),
    "bees": (
        "A honey bee tells others where flowers are by dancing: the angle of the waggle run gives "
        "the direction from the sun, its length the distance. A hive in summer holds up to 60000 "
        "bees. Only queens lay fertilised eggs."),
    "bridges": (
        "A suspension bridge hangs its deck from cables that pull on two towers and two anchors. "
        "An arch bridge pushes its load sideways into the ground instead. Long bridges have "
        "joints, because steel grows in the heat."),
    "glass": (
        "Glass is made of sand, soda and lime melted at about 1500 degrees. It is a solid without "
        "the regular order of a crystal. Old windows are not thicker below because glass flows, "
        "but because panes were uneven when they were made."),
    "volcanoes": (
        "A volcano erupts when gas dissolved in the magma forms bubbles and drives it up. Thin "
        "magma flows out calmly, sticky magma explodes. Ash from a large eruption can cool the "
        "climate for years."),
}
