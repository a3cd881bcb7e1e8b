// The verdict of a reader on the first message in some bytes.

export interface Head {
  /** What the start line says, without the version of a response; for a response, behind those of the interim ones. */
  start: string
  /** The host that a request is for, as far as the reader tells. */
  host?: string
  /** By lower-case name. Repeated fields are joined with a comma. */
  fields: Record<string, string>
}

export interface Verdict {
  outcome: 'accepted' | 'refused' | 'incomplete'
  /** Why the message is not accepted. */
  reason: string
  content: string
  /** By lower-case name. Repeated fields are joined with a comma. */
  trailers: Record<string, string>
  /** The offset at which the message ends, or -1. */
  end: number
  /** What was read of the head, if that is compared. */
  head?: Head
}

export function accepted (content: string, trailers: Record<string, string>, end: number, head?: Head): Verdict {
  return { outcome: 'accepted', reason: '', content, trailers: { ...trailers }, end, head }
}

export function refused (reason: string): Verdict {
  return { outcome: 'refused', reason, content: '', trailers: {}, end: -1 }
}

export function incomplete (reason = 'incomplete'): Verdict {
  return { ...refused(reason), outcome: 'incomplete' }
}

// Readers normalize these, each in its own way, or keep them elsewhere. What they say is in the framing and in the host.
const NOT_COMPARED: ReadonlySet<string> = new Set(['host', 'connection', 'transfer-encoding', 'content-length', 'trailer', 'cookie', 'set-cookie'])

/** The fields of a head that all readers give alike. */
export function comparable (fields: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(fields).filter(([name]) => !NOT_COMPARED.has(name)))
}

/** @param raw names and values in turn, as they were received */
export function joinFields (raw: readonly string[]): Record<string, string> {
  const fields: Record<string, string> = Object.create(null)
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i].toLowerCase()
    fields[name] = fields[name] === undefined ? raw[i + 1] : `${fields[name]}, ${raw[i + 1]}`
  }
  return fields
}
