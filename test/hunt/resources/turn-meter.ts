// Measures the longest turn of the event loop. On a busy machine a turn also takes long by the clock while other processes
// run. So a turn counts only with the processor time that this process used in it.

const INTERVAL = 5

export class TurnMeter {
  private longest = 0
  private wall = performance.now()
  private cpu = process.cpuUsage()

  constructor () {
    setInterval(() => this.measure(), INTERVAL).unref()
  }

  /** The longest turn since the last reset, in milliseconds. */
  get milliseconds (): number {
    return this.longest
  }

  reset (): void {
    this.longest = 0
    this.wall = performance.now()
    this.cpu = process.cpuUsage()
  }

  private measure (): void {
    const wall = performance.now()
    const { user, system } = process.cpuUsage(this.cpu)
    this.longest = Math.max(this.longest, Math.min(wall - this.wall, (user + system) / 1000))
    this.wall = wall
    this.cpu = process.cpuUsage()
  }
}
