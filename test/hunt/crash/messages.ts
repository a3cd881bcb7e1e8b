// The messages between a child process and its parent.

/** What the parent asks. The answer has the number of the question. */
export type Question = { ask: 'open requests', case: number } | { ask: 'run', case: number } | { ask: 'differences', prefix: string, requests: number } | { ask: 'census' } | { ask: 'close' }

export type Message =
  | { tell: 'ready', address: object, plainAddress?: object, authorities: Record<string, string> }
  | { tell: 'answer', number: number, problems: string[] }
  | { tell: 'uncaught', origin: string, stack: string }
  | { tell: 'smuggled', id: string }

/** The exit code after an uncaught exception. */
export const UNCAUGHT = 70
