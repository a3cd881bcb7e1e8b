// What a reader makes of the first message in some bytes.

export interface Verdict {
  outcome: 'accepted' | 'refused' | 'incomplete'
  /** Why it is not accepted. */
  reason: string
  content: string
  /** By lower-case name, joined with a comma. */
  trailers: Record<string, string>
  /** Where the message ends. */
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

/** Fields as they came, names and values in turn. */
export function joined (raw: readonly string[]): Record<string, string> {
  const fields: Record<string, string> = Object.create(null)
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i].toLowerCase()
    fields[name] = fields[name] === undefined ? raw[i + 1] : `${fields[name]}, ${raw[i + 1]}`
  }
  return fields
}
