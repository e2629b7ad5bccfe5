"""Rides and fuel prices, made up: `python make.py` writes rides.csv and fuel.csv."""

import csv
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

dice = random.Random(7)
start = datetime(2026, 6, 1, tzinfo=UTC)
cities = ["Basel", "Bern", "Chur"]

with Path("fuel.csv").open("w", newline="") as file:
    table = csv.writer(file)
    table.writerow(["known", "city", "price"])
    for city in cities:
        price, at = 1.7, start
        while at < start + timedelta(days=30):
            table.writerow([at.isoformat(), city, round(price, 3)])
            at += timedelta(hours=dice.randint(6, 60))
            price += dice.gauss(0, 0.05)

with Path("rides.csv").open("w", newline="") as file:
    table = csv.writer(file)
    table.writerow(["ride", "ordered", "city", "km", "minutes", "fare"])
    for ride in range(2000):
        ordered = start + timedelta(seconds=dice.randrange(30 * 86400))
        km = round(dice.expovariate(0.2), 2)
        minutes = "" if dice.random() < 0.1 else round(km * dice.uniform(1.5, 4), 1)
        fare = round(4 + 2.1 * km + (3 if ordered.hour >= 22 else 0) + dice.gauss(0, 0.5), 2)
        table.writerow([ride, ordered.isoformat(), dice.choice(cities), km, minutes, fare])
