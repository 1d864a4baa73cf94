/* The keys of `rserve: {health}` and `rserve: {replace}`. Internal to core/config. */
#pragma once

#include "core/config/fields.h"

extern const struct rs_object rs_object_health, rs_object_replace;
