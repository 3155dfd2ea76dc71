"""xlift: does more English intermediate-task training lift low-resource languages more than high-resource ones?"""
