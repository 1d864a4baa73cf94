/* SipHash-2-4: a hash that who does not know the key cannot steer, for tables whose keys come from
 * strangers. */
#pragma once

#include <stddef.h>
#include <stdint.h>

uint64_t rs_siphash(const uint64_t key[2], const void *data, size_t len);
