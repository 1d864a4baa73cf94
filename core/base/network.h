/* IP addresses and networks: is this one of those?
 *
 * An IPv4 address written as IPv6 (::ffff:1.2.3.4) is the IPv4 address.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sockaddr;

struct rs_ip {
    uint8_t bytes[16]; /* IPv4 in the mapped form */
};

struct rs_network {
    struct rs_ip base;
    unsigned bits; /* of 128 */
};

/* "192.0.2.1", "2001:db8::1" or "[2001:db8::1]" in `len` bytes. -1: it is none, *ret is untouched. */
int rs_ip_parse(struct rs_ip *ret, const char *text, size_t len);
/* -1: neither IPv4 nor IPv6. */
int rs_ip_of(struct rs_ip *ret, const struct sockaddr *sa);
/* "192.0.2.1" or "2001:db8::1" */
enum { RS_IP_TEXT = 48 };
void rs_ip_print(const struct rs_ip *ip, char out[RS_IP_TEXT]);
bool rs_ip_is_v4(const struct rs_ip *ip);

/* An address, or address/bits; bits of the address behind the network's are ignored. */
int rs_network_parse(struct rs_network *ret, const char *text);
bool rs_network_has(const struct rs_network *n, const struct rs_ip *ip);
