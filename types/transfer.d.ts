// The public types that know neither Fastify nor a stream. lib/transfer/ uses them, and index.d.ts publishes them.

/** The target of a CONNECT request. */
export interface Authority {
  /** A name or an address; IPv6 without its brackets. */
  readonly host: string
  /** 1 to 65535 */
  readonly port: number
}

/** By lower-case name; the values of a repeated field are joined with `, ` (RFC 9110 section 5.2). */
export type Fields = Record<string, string>

/** By lower-case name; the values of a repeated field are joined with `, `. */
export type Trailers = Readonly<Fields>

/** Fields to send, by name in any case; an array is one line per value. */
export type OutgoingFields = Record<string, string | number | readonly (string | number)[] | undefined>

/** What marks the end of a body: there is none, its announced length, the last chunk, the end of the connection. */
export type FramingKind = 'none' | 'length' | 'chunked' | 'close'
