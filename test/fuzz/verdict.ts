// The verdict of a reader on the first message in some bytes.

export interface Verdict {
  outcome: 'accepted' | 'refused' | 'incomplete'
  /** Why the message is not accepted. */
  reason: string
  content: string
  /** By lower-case name. Repeated fields are joined with a comma. */
  trailers: Record<string, string>
  /** The offset at which the message ends, or -1. */
  end: number
}

export function accepted (content: string, trailers: Record<string, string>, end: number): Verdict {
  return { outcome: 'accepted', reason: '', content, trailers: { ...trailers }, end }
}

export function refused (reason: string): Verdict {
  return { outcome: 'refused', reason, content: '', trailers: {}, end: -1 }
}

export function incomplete (reason = 'incomplete'): Verdict {
  return { ...refused(reason), outcome: 'incomplete' }
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
