// The types of lib/transfer/. They must not depend on Fastify's types. index.d.ts publishes those that users need.

/** The target of a CONNECT request. */
export interface Authority {
  /** A name or an address; IPv6 without its brackets. */
  readonly host: string
  /** 1 to 65535 */
  readonly port: number
}

/** Fields by lower-case name. The values of a repeated field are joined with `, ` (RFC 9110 section 5.2). */
export type Fields = Record<string, string>

/** Trailers by lower-case name. The values of a repeated field are joined with `, `. */
export type Trailers = Readonly<Fields>

/** Fields to send, by name in any case. An array becomes one line per value. */
export type OutgoingFields = Record<string, string | number | readonly (string | number)[] | undefined>

/** What marks the end of a body. `none`: there is no body; `length`: its announced length; `chunked`: its last chunk; `close`: the end of the connection. */
export type FramingKind = 'none' | 'length' | 'chunked' | 'close'
