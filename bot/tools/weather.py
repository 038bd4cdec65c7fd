"""The weather, by Open-Meteo's protocol: a place is looked up by name, then its forecast by coordinates.

Source: https://open-meteo.com/en/docs and https://open-meteo.com/en/docs/geocoding-api.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from bot.tools.function import ToolContext, ToolError, tool
from bot.tools.http import ask

WMO = {  # WMO code table 4677 as Open-Meteo uses it
    0: "clear", 1: "mostly clear", 2: "partly cloudy", 3: "overcast", 45: "foggy", 48: "foggy with rime",
    51: "light drizzle", 53: "drizzle", 55: "heavy drizzle", 56: "freezing drizzle", 57: "freezing drizzle",
    61: "light rain", 63: "rain", 65: "heavy rain", 66: "freezing rain", 67: "freezing rain",
    71: "light snow", 73: "snow", 75: "heavy snow", 77: "snow grains", 80: "light showers", 81: "showers",
    82: "heavy showers", 85: "snow showers", 86: "heavy snow showers", 95: "a thunderstorm",
    96: "a thunderstorm with hail", 99: "a thunderstorm with heavy hail",
}  # fmt: skip

Degrees = Annotated[float, Field(ge=-150, le=150)]
Code = Annotated[int, Field(ge=0, le=99)]


class WeatherOptions(BaseModel):
    """In which unit degrees are told."""

    model_config = ConfigDict(extra="forbid")

    unit: Literal["celsius", "fahrenheit"] = "celsius"


class Place(BaseModel):
    """A place as the geocoder knows it."""

    name: str = Field(max_length=200)
    country: str = Field("", max_length=200)
    latitude: float = Field(ge=-90, le=90)
    longitude: float = Field(ge=-180, le=180)


class Places(BaseModel):
    """The geocoder's answer; it leaves ``results`` out when there are none."""

    results: list[Place] = []


class Now(BaseModel):
    """The weather at this moment."""

    temperature_2m: Degrees
    weather_code: Code


class Days(BaseModel):
    """A value for each day, from today on."""

    weather_code: list[Code] = Field(min_length=2)
    temperature_2m_max: list[Degrees] = Field(min_length=2)
    temperature_2m_min: list[Degrees] = Field(min_length=2)
    precipitation_probability_max: list[Annotated[int, Field(ge=0, le=100)] | None] = Field(min_length=2)


class Forecast(BaseModel):
    """The forecast's answer."""

    current: Now
    daily: Days


@tool(timeout_s=12)
async def weather(
    city: Annotated[str, Field(description="The name of a city", min_length=2, max_length=80)],
    day: Annotated[Literal["now", "today", "tomorrow"], Field(description="For when")] = "now",
    *,
    options: WeatherOptions,
    context: ToolContext,
) -> dict[str, object]:
    """Tell the weather in a city: now, today or tomorrow."""
    settings = context.settings
    wanted: dict[str, str | int | float] = {
        "name": city,
        "count": 1,
        "language": context.language[:2],
        "format": "json",
    }
    places = await ask(
        context.http, "The weather service", Places, f"{settings.geocoding_url}/v1/search", params=wanted
    )
    if not places.results:
        raise ToolError(f"no city named {city!r} was found.")
    place = places.results[0]
    forecast = await ask(
        context.http,
        "The weather service",
        Forecast,
        f"{settings.forecast_url}/v1/forecast",
        params={
            "latitude": place.latitude,
            "longitude": place.longitude,
            "current": "temperature_2m,weather_code",
            "daily": "weather_code,temperature_2m_max,temperature_2m_min,precipitation_probability_max",
            "temperature_unit": options.unit,
            "timezone": "auto",
            "forecast_days": 2,
        },
    )
    where = ", ".join(name for name in (_name(place.name), _name(place.country)) if name)
    return {"city": where, "when": day, **_told(forecast, day), "unit": f"degrees {options.unit.title()}"}


def _told(forecast: Forecast, day: str) -> dict[str, object]:
    if day == "now":
        now = forecast.current
        return {"condition": _condition(now.weather_code), "degrees": round(now.temperature_2m)}
    at, days = int(day == "tomorrow"), forecast.daily
    return {
        "condition": _condition(days.weather_code[at]),
        "highest": round(days.temperature_2m_max[at]),
        "lowest": round(days.temperature_2m_min[at]),
        "rain_percent": days.precipitation_probability_max[at],
    }


def _condition(code: int) -> str:
    return WMO.get(code, "changeable")


def _name(text: str) -> str:
    """A name and nothing else: the one thing here that the service writes in words."""
    return re.sub(r"[^\w .'’-]|_", "", text)[:40].strip()
