// A list that its members can leave at any time. A Map could do that too, but it is rebuilt again and again while its members come and
// go: the two lists of each short exchange took 1.5 % of its time.

/** The place of a member in a list. */
export class Entry<Member> {
  readonly member: Member
  previous: Entry<Member> = this
  next: Entry<Member> = this

  constructor (member: Member) {
    this.member = member
  }

  get isListed (): boolean {
    return this.next !== this
  }

  /** Does nothing if it has left before. */
  leave (): void {
    this.previous.next = this.next
    this.next.previous = this.previous
    this.previous = this.next = this
  }
}

export class List<Listed extends Entry<unknown>> {
  /** Stands before the first entry and behind the last. */
  private readonly ends = new Entry<unknown>(null)

  get isEmpty (): boolean {
    return !this.ends.isListed
  }

  /** Adds an entry behind the last. */
  add (entry: Listed): void {
    const { ends } = this
    entry.previous = ends.previous
    entry.next = ends
    ends.previous.next = ends.previous = entry
  }

  /** The present entries, the oldest first. Some may leave while the caller goes through them. */
  entries (): Listed[] {
    const entries: Listed[] = []
    for (let entry = this.ends.next; entry !== this.ends; entry = entry.next) entries.push(entry as Listed)
    return entries
  }
}
