// What a child process and its parent tell each other.

/** What a parent asks for; the answer has the same number. */
export type Question = { ask: 'balance', case: number } | { ask: 'run', case: number } | { ask: 'differences', prefix: string, requests: number } | { ask: 'census' } | { ask: 'close' }

export type Message =
  | { tell: 'ready', address: object, plainAddress?: object, authorities: Record<string, string> }
  | { tell: 'answer', number: number, wrong: string[] }
  | { tell: 'uncaught', origin: string, stack: string }
  | { tell: 'smuggled', id: string }

/** The exit code of a process in which nobody has caught something. */
export const UNCAUGHT = 70
